"""What training minimises, so that what is learned holds elsewhere as well."""
