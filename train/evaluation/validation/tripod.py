"""The items of TRIPOD+AI (Collins et al., BMJ 2024;385:e078378), and where a validation answers them.

A report of a validation has to answer all 27. This program can answer some; the rest only the laboratory knows.
"""

YOU = "To be added by you"
ITEMS: tuple[tuple[str, str, str], ...] = (
    ("1", "Title", "The headline of this page"),
    ("2", "Abstract", "The sentences below the headline"),
    ("3", "Background: context, target population, inequalities", YOU),
    ("4", "Objectives", "How good a finished model is on these patients"),
    ("5", "Data: sources and dates", YOU),
    ("6", "Participants: setting, eligibility, treatments", YOU),
    ("7", "Data preparation", "The model card; the same for all patients"),
    ("8", "Outcome: definition, assessors, blinding", f"LABEL of the table. {YOU}: who gave it, by which test"),
    ("9", "Predictors", "The model card. {YOU}: who counted".replace("{YOU}", YOU)),
    ("10", "Sample size", "The last sentence: patients needed for intervals of 5 points"),
    ("11", "Missing data", "Nothing is imputed: refused patients are counted under Patients"),
    ("12", "Analytical methods", "How this was made, and the lines above each table"),
    ("13", "Class imbalance", "Nothing is resampled or weighted"),
    ("14", "Fairness", "Subgroups by sex, age and count"),
    ("15", "Model output", "The model card: probability, decision, refer"),
    ("16", "Training versus evaluation", "Patients, last column; whose pictures were trained on"),
    ("17", "Ethical approval", YOU),
    ("18", "Open science: funding, conflicts, protocol, registration, data and code", YOU),
    ("19", "Patient and public involvement", YOU),
    ("20", "Participants: flow and characteristics", "Patients"),
    ("21", "Model development", "The model card"),
    ("22", "Model specification", "The bundle, by its ID"),
    ("23", "Model performance", "All patients, operating points, calibration, decision curve, subgroups"),
    ("24", "Model updating", "None here; see export adapt"),
    ("25", "Interpretation", f"The sentences below the headline. {YOU}: what follows for your patients"),
    ("26", "Limitations", YOU),
    ("27", "Usability: poor input, expertise of users", "Refused patients; the manual of scoring"),
)
