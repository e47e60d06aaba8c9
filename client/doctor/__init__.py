"""The go/no-go list for a hospital's IT: every condition of a node, checked for real, with its remedy."""
