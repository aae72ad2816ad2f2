"""What the pages of all visitors share: caches with bounds, background jobs, polling, memory given back."""
