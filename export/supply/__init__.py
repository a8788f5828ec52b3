"""Software of others that ships: the base image, the locked packages, the image's SBOM, the table of SOUP."""
