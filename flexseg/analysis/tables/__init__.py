"""From numbers to tables, and the words beside them."""
