"""Word ids: the most frequent lower-case words of a corpus."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.trainers import WordLevelTrainer

from gradflow.checks import check_integer

PADDING, UNKNOWN = 0, 1
"""The ids of padding and of words that are not in the vocabulary."""

_SPECIAL = ["[PAD]", "[UNK]"]


class Vocabulary(NamedTuple):
    """Words and their ids: 0 for padding, 1 for unknown words, then words by frequency.

    Attributes:
      words: The word of each id.
      tokenizer: The tokeniser of the library.
    """

    words: tuple[str, ...]
    tokenizer: Tokenizer

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.words)

    def encode(
        self, texts: Sequence[str], max_length: int, *, keep: str = "start"
    ) -> list[Int[np.ndarray, " _"]]:
        """Returns the word ids of each text; a text without words is one unknown word.

        Args:
          texts: The texts.
          max_length: Maximal number of words of a text.
          keep: Which words of a longer text are kept: those at its ``start`` or its ``end``.

        Raises:
          ValueError: If max_length is below 1, or keep is another word.
        """
        check_integer("max_length", max_length, 1)
        if keep not in ("start", "end"):
            raise ValueError(
                f"Expected keep to be 'start' or 'end', got {keep!r}. Set it to one of these."
            )
        part = slice(max_length) if keep == "start" else slice(-max_length, None)
        found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids[part] or [UNKNOWN], np.int32) for one in found]


def build_vocabulary(texts: Iterable[str], *, max_size: int, min_count: int = 1) -> Vocabulary:
    """Builds the vocabulary of the most frequent words of the given texts.

    A word is a sequence of letters, digits and underscores, or of other symbols, in lower case.
    Words of equal counts are in alphabetical order.

    Args:
      texts: The texts of the training part.
      max_size: Maximal number of ids, including the two special ones.
      min_count: Minimal number of occurrences of a word.

    Raises:
      ValueError: If max_size leaves no id for a word, or no word occurs min_count times.
    """
    check_integer("max_size", max_size, len(_SPECIAL) + 1)
    tokenizer = _tokenizer(WordLevel(unk_token=_SPECIAL[UNKNOWN]))
    trainer = WordLevelTrainer(
        vocab_size=max_size,
        min_frequency=min_count,
        special_tokens=_SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    if len(ids) <= len(_SPECIAL):
        raise ValueError(
            f"Expected words that occur at least {min_count} times, got none. Add texts or reduce "
            "min_count."
        )
    # The trained tokeniser would read the string "[PAD]" in a text as padding; a new one does not.
    plain = _tokenizer(WordLevel(ids, unk_token=_SPECIAL[UNKNOWN]))
    return Vocabulary(tuple(sorted(ids, key=ids.__getitem__)), plain)


def _tokenizer(model: WordLevel) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    return tokenizer
