"""Training runs as folders on the disk: the store, the queue, the process that trains, snapshots and summaries."""
