"""How near a picture is to another."""
