"""Array loops, compiled: one file a family. Nothing here knows a tensor."""
