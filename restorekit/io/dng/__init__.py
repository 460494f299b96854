"""DNG files (Adobe, version 1.7): read and written, their opcode lists, and camera profiles (DCP)."""
