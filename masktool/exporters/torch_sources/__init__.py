"""Sources of torch: modules, checkpoints, archives and hubs; torch is imported inside functions alone."""
