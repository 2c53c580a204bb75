"""config.json: its shape, how it is read and checked, where it comes from, and the snapshot everybody works on."""
