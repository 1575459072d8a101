"""Access to the machine: environment, files, GPU driver and arrays."""
