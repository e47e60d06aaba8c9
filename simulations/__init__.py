"""Many emulated hospitals on one machine, with the real client and server code."""
