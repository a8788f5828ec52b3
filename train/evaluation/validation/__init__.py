"""How good a finished bundle is on patients whose diagnosis is known. Nothing here is fitted that ships."""
