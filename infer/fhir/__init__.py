"""Results for a hospital's systems: a FHIR transaction Bundle a patient (R4 or R5), from what a finished run left."""
