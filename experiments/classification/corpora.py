"""Reads the corpora of the study."""

import os

from classification.config import Config
from gradflow.data.ag_news import read_ag_news
from gradflow.data.corpus import Corpus, make_corpus
from gradflow.data.imdb import find_imdb, read_imdb
from gradflow.data.trec import FILES, read_trec


def files(config: Config) -> list[str]:
    """Lists the files of the corpus; of IMDb the archive, or the folder of all reviews."""
    if config.data_dir is None:
        return []
    if config.data == "imdb":
        return [str(find_imdb(config.data_dir))]
    news = (config.train_file or "train.csv", "test.csv")
    names = news if config.data == "ag_news" else FILES.values()
    return [os.path.join(config.data_dir, name) for name in names]


def read_corpus(config: Config) -> Corpus:
    """Reads the files; the tenth that is held out is the same for all seeds.

    Raises:
      ValueError: If a file is missing or damaged, or a flag is for another corpus.
    """
    folder = config.data_dir
    if config.train_file is not None and config.data != "ag_news":
        raise ValueError(
            f"--train_file applies only to --data=ag_news, got --data={config.data}. Remove "
            "--train_file or set --data=ag_news."
        )
    if config.data == "ag_news":
        titles = config.train_file is None
        train = read_ag_news(folder, "train", name=config.train_file, titles=titles)
        test = read_ag_news(folder, "test", titles=titles)
    else:
        read = {"trec": read_trec, "imdb": read_imdb}[config.data]
        train, test = read(folder, "train"), read(folder, "test")
    s = config.setting
    return make_corpus(
        train,
        test,
        seed=config.seed,
        max_length=s.max_length,
        max_words=s.max_words,
        min_count=s.min_count,
        keep=s.keep,
    )
