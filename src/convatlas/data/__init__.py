"""Images and labels: found, checked, cut into parts and turned into what a network takes."""

from .check import BadFile as BadFile
from .check import check as check
from .decode import decode as decode
from .images import Images as Images
from .named import NAMES as NAMES
from .open import open_data as open_data
from .preprocess import Preprocess as Preprocess
from .splits import Splits as Splits
