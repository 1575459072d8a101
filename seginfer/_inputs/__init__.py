"""Camera images to network inputs."""
