"""What the commands do, a file each: from a benchmark file to data, runs, records and exports on disk."""
