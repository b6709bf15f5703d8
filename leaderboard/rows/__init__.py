"""Result rows: their schema, their reading and writing."""
