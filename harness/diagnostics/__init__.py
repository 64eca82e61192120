"""Looking for trouble before and outside a training: probe, benchmark, fault drill."""
