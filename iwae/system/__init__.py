"""The machine: whole files, folders, processes, cores, output streams, and readers of untrusted files."""
