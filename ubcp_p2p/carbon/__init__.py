"""How much carbon a kilowatt-hour costs here, now and later. Nothing here guesses where this machine is."""
