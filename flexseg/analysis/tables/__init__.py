"""Tables, and the words that captions and reports share."""
