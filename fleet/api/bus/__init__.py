"""The bus over HTTP: one reader, one buffer, and a follower for each client."""
