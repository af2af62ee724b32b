"""MovieLens, by GroupLens: 100K (u.data), 1M and 10M (.dat), 20M and later (.csv)."""

from __future__ import annotations

from pipelines.config.yaml_text import quoted
from pipelines.log.public_sets.files import LAST, Files, Lines

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def movielens(files: Files) -> Lines:
    """Write 100K (u.data), 1M and 10M (.dat), 20M and later (.csv)."""
    rating = (
        "    # every rating counts; to keep the good ones: exclude: [{column: rating, below: 4, reason: rated low}]"
    )
    if log := files.one("ratings.csv"):
        yield from ("data:", "  events:", f"    path: {quoted(log)}")
        yield from ("    user: userId", "    item: movieId", "    time: timestamp", "    time_unit: s", rating)
        if movies := files.one("movies.csv"):
            yield from ("  items:", f"    path: {quoted(movies)}", "    id: movieId")
            yield from _genres()
    elif log := files.one("ratings.dat"):
        yield from ("data:", "  events:", f"    path: {quoted(log)}", '    delimiter: "::"')
        yield "    columns: [userId, movieId, rating, timestamp]"
        yield from ("    user: userId", "    item: movieId", "    time: timestamp", "    time_unit: s", rating)
        if movies := files.one("movies.dat"):
            yield from ("  items:", f"    path: {quoted(movies)}", '    delimiter: "::"')
            yield from (*_encoding(files, movies), "    columns: [movieId, title, genres]", "    id: movieId")
            yield from _genres()
        if users := files.one("users.dat"):
            yield from ("  profile:", f"    path: {quoted(users)}", '    delimiter: "::"')
            yield from ("    columns: [userId, gender, age, occupation, zip]", "    id: userId")
            yield from ("    features:", "      gender: {}", "      age: {} # brackets, by their lower end")
            yield "      occupation: {}"
    elif log := files.one("u.data"):
        yield from ("data:", "  events:", f"    path: {quoted(log)}", "    format: csv", '    delimiter: "\\t"')
        yield "    columns: [userId, movieId, rating, timestamp]"
        yield from ("    user: userId", "    item: movieId", "    time: timestamp", "    time_unit: s", rating)
        if movies := files.one("u.item"):
            yield from ("  items:", f"    path: {quoted(movies)}", "    format: csv", '    delimiter: "|"')
            yield from ('    quote: ""', *_encoding(files, movies))
            yield f"    columns: [movieId, title, released, video, url, {', '.join(GENRES)}]"
            yield from ("    id: movieId", "    features: # a column a genre, 0 or 1")
            yield from (f"      {genre}: {{}}" for genre in GENRES)
            yield "    show: [title]"
        if users := files.one("u.user"):
            yield from ("  profile:", f"    path: {quoted(users)}", "    format: csv", '    delimiter: "|"')
            yield from ("    columns: [userId, age, gender, occupation, zip]", "    id: userId")
            yield from ("    features:", "      age: {kind: bucket}", "      gender: {}", "      occupation: {}")
    else:
        raise files.none("ratings.csv, ratings.dat or u.data, as MovieLens has them")
    yield LAST


def _genres() -> Lines:
    yield from ("    features:", '      genres: {kind: multi, separator: "|"}', "    show: [title, genres]")


def _encoding(files: Files, path: str) -> Lines:
    try:
        files.text(path).decode()
    except UnicodeDecodeError:
        yield "    encoding: latin-1"
