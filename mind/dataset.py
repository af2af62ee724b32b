"""A dataset made of a frame or of a configuration, by the same pass as `mind preprocess`: what models are fitted to.

import mind

dataset = mind.Dataset.from_frame(purchases, user="household", item="product", time="bought_at")
model = dataset.fit(train={"epochs": 5})
model.evaluate()
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mind.calls import stage
from mind.frame_log import require_column, table_section, write_log
from mind.frames import as_arrow
from mind.settings import Settings, plain
from pipelines.config.home_location import home_folder, shown
from pipelines.config.load import load_config, merge
from pipelines.config.names import MAX_NAME, is_name
from pipelines.config.schema import Config
from pipelines.errors import UserError

if TYPE_CHECKING:
    from mind.fitted import FittedModel
    from pipelines.dataset.dataset import Dataset as StoredDataset

Features = Iterable[str] | Mapping[str, Mapping[str, Any]]


class Dataset:
    """Users' events in order, split into train, validation and test; `from_frame` or `from_config` makes it.

    Attributes
    ----------
    config : all settings.
    path : the dataset's folder, docs/preprocessing.md says what is in it.
    conf : the configuration file that stands for it: commands take it, ``mind evaluate CONF``.
    """

    def __init__(self, settings: Settings, config: Config, stored: StoredDataset) -> None:
        self._settings, self.config, self._stored = settings, config, stored

    @classmethod
    def from_frame(
        cls,
        events: Any,
        *,
        user: str = "user",
        item: str = "item",
        time: str = "time",
        items: Any = None,
        item_id: str | None = None,
        item_features: Features = (),
        show: Iterable[str] = (),
        profile: Any = None,
        profile_id: str | None = None,
        profile_features: Features = (),
        name: str = "frame",
        home: str | Path | None = None,
        **settings: Any,
    ) -> Dataset:
        """Make a dataset of a frame of events: pandas, Polars, Arrow, or whatever exports Arrow.

        The frames are written into the home as Parquet and read from there as any log is. The same frames and settings
        give the dataset that is there already.

        Parameters
        ----------
        events : a row an event.
        user, item, time : its columns. Times are timestamps, dates, ISO text, or numbers in their order.
        items : a row an item, with what is known of it.
        item_id : its column of ids; None: named as `item`.
        item_features : its columns that the model learns from: names (numbers with a fraction are numeric, lists have
            several values, all else are categories), or settings by name, ``{"genres": {"kind": "multi"}}``.
        show : its columns to print beside an id.
        profile, profile_id, profile_features : the same of the users.
        name : of the dataset, its runs and models.
        home : folder of datasets, models and runs; None: ``MIND_HOME``, else ``mind_home`` here.
        settings : sections, as in a configuration: ``evaluate={"seen": "keep"}``, ``data={"min_item_events": 5}``.

        Raises
        ------
        UserError
            In one line: what is wrong with a frame, a column or a setting.
        """
        if not is_name(name, MAX_NAME):
            raise UserError(f"name={name!r}: must be letters, digits, '.', '_' and '-', as a folder is named after it")
        tables = {"events": as_arrow(events, "events")}
        for column in (user, item, time):
            require_column(tables["events"], column, "events")
        data: dict[str, Any] = {"events": {"user": user, "item": item, "time": time}}
        for kind, frame, id_column, features, printed in (
            ("items", items, item_id or item, item_features, show),
            ("profile", profile, profile_id or user, profile_features, ()),
        ):
            if frame is None:
                if features or printed:
                    raise UserError(f"{kind.removesuffix('s')}_features: needs {kind}=, a frame")
                continue
            tables[kind] = as_arrow(frame, kind)
            require_column(tables[kind], id_column, kind)
            data[kind] = table_section(id_column, features, printed, tables[kind], kind)
        folder = _home(str(home or os.environ.get("MIND_HOME") or "mind_home"))
        given = plain(settings)
        sections = merge({"data": data}, given)
        _validate(name, shown(folder), sections, given)
        with stage():
            conf = write_log(folder, name, tables, sections)
        return cls._made(Settings(conf, shown(folder)))

    @classmethod
    def from_config(cls, conf: str | Path, *, home: str | Path | None = None, preset: str | None = None) -> Dataset:
        """Make the dataset of a configuration file, or open it if it is up to date: a log of any size and place.

        Parameters
        ----------
        home, preset : as the options of that name.

        Raises
        ------
        UserError
            In one line: what is wrong with the file, or with the log.
        """
        return cls._made(Settings(Path(conf), None if home is None else str(home), preset))

    @classmethod
    def _made(cls, settings: Settings) -> Dataset:
        config = settings.config("settings")
        from pipelines.preprocess.preprocess import Source, made_before, preprocess
        from pipelines.preprocess.summary import record_summary

        with stage():
            source = Source.read(config.data)
            stored = made_before(config, source)
            if stored is None:
                stored = preprocess(config, source)
                record_summary(config, stored)
        return cls(settings, config, stored)

    @property
    def path(self) -> Path:
        """The dataset's folder."""
        return self.config.dataset_path

    @property
    def conf(self) -> Path:
        """The configuration file that stands for the dataset."""
        return self._settings.conf

    @property
    def counts(self) -> dict[str, int]:
        """Users, items and events, and the targets of validation and test."""
        manifest = self._stored.manifest
        targets = {f"{name} targets": manifest.splits[name].targets for name in ("validation", "test")}
        return {"users": manifest.users, "items": manifest.items, "events": manifest.events, **targets}

    @property
    def set_aside(self) -> dict[str, int]:
        """Rows of the log that are not in the dataset, by the reason."""
        return dict(self._stored.manifest.set_aside)

    @property
    def quality_page(self) -> Path:
        """The page on the data's quality, HTML."""
        return self._stored.layout.quality_page

    def fit(self, preset: str | None = None, *, again: bool = False, **settings: Any) -> FittedModel:
        """Train a model, as `mind train` does; progress is shown.

        The same settings on the same data give the same model: one that is there already is taken.

        Parameters
        ----------
        preset : ``default``, ``paper``, ``youtube_dnn``, ``sasrec`` or ``popularity``.
        again : train anew even so.
        settings : sections, as in a configuration: ``train={"epochs": 5}``, ``model={"interests": 2}``.

        Raises
        ------
        UserError
            In one line: a setting that there is not, a value that it does not take, or too little data or memory.
        """
        from mind.fitted import FittedModel

        chosen = self._settings.with_more("fit()", settings, preset)
        config = chosen.config("fit()")
        from pipelines.models.runs import finished_model

        folder = None if again else finished_model(config, self._stored)
        if folder is None:
            from pipelines.training.train import train

            with stage():
                folder = train(config).model
        return FittedModel(chosen, config, folder)

    def fitted(self, model: str | None = None, preset: str | None = None) -> FittedModel:
        """Open a model that was trained on this dataset before, by this program or by `mind train`.

        Parameters
        ----------
        model : its name, folder or ``models:/`` URI; None: the newest of the preset.

        Raises
        ------
        UserError
            If there is none.
        """
        from mind.fitted import FittedModel
        from pipelines.models.find import find_model

        chosen = self._settings.with_more("fitted()", {}, preset)
        config = chosen.config("fitted()")
        with stage():
            folder = find_model(config, self._stored, model)
        return FittedModel(chosen, config, folder)

    def __repr__(self) -> str:
        counted = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        return f"<mind.Dataset {self.config.name}: {counted}>"

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><td>{name}</td><td>{count:,}</td></tr>" for name, count in self.counts.items())
        aside = "".join(
            f"<tr><td>set aside: {escape(why)}</td><td>{n:,}</td></tr>" for why, n in self.set_aside.items()
        )
        return f"<b>Dataset {escape(self.config.name)}</b><table>{cells}{aside}</table>{escape(shown(self.path))}"


def _validate(name: str, home: str, sections: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse settings before anything is written."""
    from pipelines.config.explain import Layer

    if "preset" in given:
        raise UserError("from_frame(): preset: must be given to fit()")
    paths = {kind: {"path": "frame.parquet"} for kind in sections["data"] if kind in ("events", "items", "profile")}
    values = merge({"name": name, "home": home, "data": paths}, dict(sections))
    load_config(Path(os.devnull), over=Layer("from_frame()", values))


def _home(place: str) -> Path:
    try:
        return home_folder(place)
    except ValueError as error:
        raise UserError(str(error)) from None
