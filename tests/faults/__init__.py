"""What goes wrong between a store and a volume, tried on real servers, and the table of what came of it."""
