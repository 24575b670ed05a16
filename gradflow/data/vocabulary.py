"""From texts to numbers: words in lower case, the most frequent of them by a number each."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.trainers import WordLevelTrainer

PADDING, UNKNOWN = 0, 1
"""The numbers of no word, and of a word that the vocabulary lacks."""

_SPECIAL = ["[PAD]", "[UNK]"]


class Vocabulary(NamedTuple):
    """Words and their numbers: 0 for padding, 1 for what is unknown, then the most frequent first.

    Attributes:
      words: By number.
      tokenizer: That of the library, which does the work.
    """

    words: tuple[str, ...]
    tokenizer: Tokenizer

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.words)

    def encode(
        self, texts: Sequence[str], max_length: int, *, keep: str = "start"
    ) -> list[Int[np.ndarray, " _"]]:
        """The numbers of each text's words; 1 for a text of none.

        Args:
          texts: The texts.
          max_length: The most words of a text.
          keep: Which of them, where it has more: those at its ``start`` or at its ``end``.

        Raises:
          ValueError: If the length is below 1, or others are to be kept.
        """
        if max_length < 1:
            raise ValueError(f"max_length is expected to be at least 1, got {max_length}")
        if keep not in ("start", "end"):
            raise ValueError(f"keep is expected to be 'start' or 'end', got {keep!r}")
        part = slice(max_length) if keep == "start" else slice(-max_length, None)
        found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids[part] or [UNKNOWN], np.int32) for one in found]


def build_vocabulary(texts: Iterable[str], *, max_size: int, min_count: int = 1) -> Vocabulary:
    """Counts the words of texts, of the training part alone, and numbers the most frequent.

    A word is a run of letters, digits and underscores, or a run of other signs, in lower case.
    Words of equal counts are in alphabetical order.

    Args:
      texts: What is counted.
      max_size: The most numbers, the two special ones among them.
      min_count: How often a word must occur to have a number.

    Raises:
      ValueError: If there is no room for a word, or no word that occurs so often.
    """
    if max_size < 3:
        raise ValueError(
            "max_size is expected to be 3 at least, for padding, for what is unknown and for a "
            f"word, got {max_size}"
        )
    tokenizer = _tokenizer(WordLevel(unk_token=_SPECIAL[UNKNOWN]))
    trainer = WordLevelTrainer(
        vocab_size=max_size,
        min_frequency=min_count,
        special_tokens=_SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    numbers = tokenizer.get_vocab()
    if len(numbers) <= len(_SPECIAL):
        raise ValueError(
            f"words that occur {min_count} times or more are expected in the texts, got none: give "
            "more texts or a lower min_count"
        )
    # The trained one would take the special words for such where they stand in a text.
    plain = _tokenizer(WordLevel(numbers, unk_token=_SPECIAL[UNKNOWN]))
    return Vocabulary(tuple(sorted(numbers, key=numbers.__getitem__)), plain)


def _tokenizer(model: WordLevel) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    return tokenizer
