"""GPU benchmark cases: networks, backends and peers, checked and timed."""
