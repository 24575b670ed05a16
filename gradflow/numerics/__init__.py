"""Linear algebra and tools for traced programs that know no cell."""
