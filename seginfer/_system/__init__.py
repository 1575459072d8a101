"""The machine: its limits, its driver, its files, and optional packages."""
