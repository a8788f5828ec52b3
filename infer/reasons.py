"""Why a patient or a picture has no probability: every code that may occur in the result files, with its sentence.

A reason is a text, "code: sentence". Programs read the code, people read the sentence. Sentences contain line numbers,
sizes and counts, never a patient's values.
"""

from enum import Enum

REFUSED, FAILED, REJECTED = "refused", "failed", "rejected"


class Reason(Enum):
    """Code (the name in lower case), status of the patient or picture, and sentence."""

    # A patient's row: the data do not allow a probability.
    SEX_MISSING = REFUSED, "GENDER in line {line} is empty or no code for male or female; see --sex-codes"
    COUNT_MISSING = REFUSED, "LYMPH_COUNT in line {line} is empty"
    COUNT_UNREADABLE = REFUSED, "LYMPH_COUNT in line {line} is no number (digits, decimal point, no unit)"
    COUNT_IMPLAUSIBLE = REFUSED, "LYMPH_COUNT in line {line} is outside the plausible range{hint}"
    AGE_UNREADABLE = REFUSED, "AGE in line {line} is no number"
    AGE_IMPLAUSIBLE = REFUSED, "the age from line {line} is outside the plausible range"
    BIRTH_DATE_MISSING = REFUSED, "DOB in line {line} is empty"
    BIRTH_DATE_UNREADABLE = REFUSED, "DOB in line {line} cannot be read as a date; see --date-format"
    BIRTH_DATE_PLACEHOLDER = (
        REFUSED,
        "DOB in line {line} is 1 January 1900 or the like, or has a zero in it, as is written for an unknown date",
    )
    SAMPLE_DATE_MISSING = REFUSED, "SAMPLE_DATE in line {line} is empty"
    SAMPLE_DATE_UNREADABLE = REFUSED, "SAMPLE_DATE in line {line} cannot be read as a date; see --sample-date-format"
    SAMPLE_DATE_PLACEHOLDER = (
        REFUSED,
        "SAMPLE_DATE in line {line} is the first day of a computer's calendar, or has a zero in it",
    )
    SAMPLE_DATE_IN_FUTURE = REFUSED, "SAMPLE_DATE in line {line} is later than today"
    SAMPLE_DATE_BEFORE_BIRTH = REFUSED, "SAMPLE_DATE in line {line} is earlier than DOB"
    TOO_FEW_IMAGES = REFUSED, "fewer than {minimum} pictures can be used"
    UNLIKE_TRAINING = REFUSED, "unlike the training patients: {what}; see --ood"

    # A patient who should have been scored.
    ID_MISSING = FAILED, "ID in line {line} is empty"
    ID_UNUSABLE = FAILED, "ID in line {line} cannot be the name of a folder"
    ID_DUPLICATE = FAILED, "the ID stands {times} times in the table"
    FOLDER_MISSING = FAILED, "the cohort has no folder of this name{hint}"
    FOLDER_EMPTY = FAILED, "the patient's folder holds no picture{below}"
    FOLDER_OUTSIDE = FAILED, "the patient's folder is a link out of the cohort"
    FOLDER_UNREADABLE = FAILED, "{error}"
    STILL_CHANGING = FAILED, "{what}"
    NO_USABLE_IMAGE = FAILED, "none of the patient's pictures can be used"
    READING_BROKE_OFF = FAILED, "{error}"
    NOT_FINITE = FAILED, "a network gave no number for this patient"

    # A picture.
    NOT_AN_IMAGE = REJECTED, "the content is not JPEG, PNG, TIFF or BMP"
    UNDECODABLE = REJECTED, "the file is truncated or damaged"
    DAMAGED = REJECTED, "{error}. Copy the file again from where it comes from"
    TOO_SMALL = REJECTED, "{width} x {height}{rescaled}, at least {size} x {size} is needed"
    TOO_MANY_PIXELS = REJECTED, "the picture is far larger than an analyser's"
    SEVERAL_FRAMES = REJECTED, "the file holds more than one picture"
    OTHER_COLOURS = REJECTED, "{mode} instead of RGB or grey. Save the picture as RGB"
    NOT_8_BIT = REJECTED, "more than 8 bits a channel"
    TRANSPARENT = REJECTED, "the picture has transparent pixels"
    NO_CELL = REJECTED, "no cell in the middle of the picture"
    DECODER_CRASHED = REJECTED, "the decoder crashes at this picture"
    EMPTY = REJECTED, "the file has no bytes"
    TOO_LARGE = REJECTED, "the file is larger than 64 MiB"
    NOT_A_FILE = REJECTED, "not a regular file"
    OUTSIDE = REJECTED, "the link leads out of the cohort"
    UNREADABLE = REJECTED, "{error}"
    PATIENT_REFUSED = REJECTED, "usable, but the patient has no probability"
    PATIENT_FAILED = REJECTED, "usable, but the patient has no probability"

    def __init__(self, status: str, sentence: str) -> None:
        self.status = status
        self.sentence = sentence

    def __new__(cls, *_: str) -> "Reason":
        member = object.__new__(cls)
        member._value_ = len(cls.__members__)  # otherwise two reasons with the same sentence would be aliases
        return member

    @property
    def code(self) -> str:
        """The code, for programs."""
        return self.name.lower()

    def text(self, **details: object) -> str:
        """Code and sentence; `details` fill its placeholders."""
        return f"{self.code}: {self.sentence.format(**details)}"


def code_of(reason: str) -> str:
    """The code of a reason as written in a result file."""
    return reason.partition(":")[0]
