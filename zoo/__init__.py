"""The architectures, one file each, behind the interface in `zoo.language_model`."""
