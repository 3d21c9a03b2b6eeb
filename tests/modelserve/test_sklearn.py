"""The scikit-learn runtime: what it loads, what it refuses, and what it makes of rows."""

import bz2
import io
import pickle
import types
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from odd_models import Failing, Saying
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC

from modelserve.errors import RequestError, UnfitError, WrongBytesError
from modelserve.runtimes import sklearn as runtime
from modelserve.runtimes.base import Column
from modelserve.runtimes.sklearn import SklearnModel
from modelserve.runtimes.sklearn_inputs import parts

FRAME = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "country": ["FR", "DE", "FR", "ES"], "seats": [1, 2, 3, 4]})
LABELS = [0, 1, 1, 0]


def load(model: object, *, allow_version_mismatch: bool = False) -> SklearnModel:
    """Save and load a model."""
    return runtime.load(pickle.dumps(model), "m.pkl", allow_version_mismatch=allow_version_mismatch)


def old(model: object) -> bytes:
    """The model as scikit-learn 0.1 would have saved it."""

    class Pickler(pickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            if not isinstance(value, BaseEstimator):
                return NotImplemented
            create, arguments, state = value.__reduce_ex__(2)[:3]
            return create, arguments, {**state, "_sklearn_version": "0.1"}

    out = io.BytesIO()
    Pickler(out).dump(model)
    return out.getvalue()


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3)])
def test_every_compression_of_joblib_is_loaded(compress: Any) -> None:
    """The bytes say how they are compressed, not the name."""
    out = io.BytesIO()
    joblib.dump(LinearRegression().fit([[1], [2]], [2, 4]), out, compress=compress)

    model = runtime.load(out.getvalue(), "model.joblib", allow_version_mismatch=False)

    assert model.predict([[3]]) == pytest.approx([6.0])


def test_another_version_of_scikit_learn_is_refused_with_both_versions() -> None:
    """Loading it would be unsupported, and might predict something else."""
    with pytest.raises(UnfitError, match=r"was saved by scikit-learn 0\.1, and this is [0-9.]+"):
        runtime.load(old(LinearRegression().fit([[1], [2]], [2, 4])), "m.pkl", allow_version_mismatch=False)


def test_another_version_is_loaded_if_the_setting_allows_it(caplog: pytest.LogCaptureFixture) -> None:
    """The versions are then a warning."""
    model = runtime.load(old(LinearRegression().fit([[1], [2]], [2, 4])), "m.pkl", allow_version_mismatch=True)

    assert model.predict([[3]]) == pytest.approx([6.0])
    assert "from version 0.1 when using version" in caplog.text


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of a library that the image lacks says which."""
    module = types.ModuleType("xgbust")
    exec("class Model:\n    def predict(self, rows): return rows", vars(module))
    monkeypatch.setitem(__import__("sys").modules, "xgbust", module)
    data = pickle.dumps(module.Model())
    monkeypatch.delitem(__import__("sys").modules, "xgbust")

    with pytest.raises(UnfitError, match=r"m\.pkl needs the module xgbust, which is not here") as refused:
        runtime.load(data, "m.pkl", allow_version_mismatch=False)

    assert refused.value.hint == "Install xgbust in the image."


def test_a_module_of_another_version_is_told_from_a_missing_library() -> None:
    """What numpy 9 saves is not cured by installing numpy."""
    with pytest.raises(UnfitError, match=r"needs the module numpy\._core9") as refused:
        runtime.load(b"\x80\x04cnumpy._core9\narray\n.", "m.pkl", allow_version_mismatch=False)

    assert refused.value.hint == "Install the version of numpy that it was saved with."


def test_a_class_of_the_training_script_is_named() -> None:
    """A transformer that was defined in a notebook is told from a broken file."""
    data = b"\x80\x04c__main__\nMyScaler\n."

    with pytest.raises(UnfitError, match=r"needs something that is not here: .*MyScaler"):
        runtime.load(data, "m.pkl", allow_version_mismatch=False)


WHOLE = pickle.dumps(RandomForestClassifier(3).fit([[0], [1]], [0, 1]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        WHOLE[:-200],
        WHOLE[:20],
        bz2.compress(WHOLE)[:-9],
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<html>",
    ],
    ids=["empty", "no tail", "head only", "truncated bzip2", "git-lfs pointer", "html"],
)
def test_what_is_no_whole_pickle_is_refused(data: bytes) -> None:
    """Cut files, pointers and error pages are wrong bytes, not bugs."""
    with pytest.raises(WrongBytesError, match=r"m\.pkl cannot be unpickled: \w+: "):
        runtime.load(data, "m.pkl", allow_version_mismatch=False)


def test_what_has_no_predict_is_no_model() -> None:
    """A dict with a model inside is a common mistake."""
    with pytest.raises(WrongBytesError, match=r"m\.pkl holds a dict, which has no predict"):
        load({"model": LinearRegression()})


def test_a_model_that_was_never_fitted_is_refused() -> None:
    """It would refuse every request."""
    with pytest.raises(WrongBytesError, match="a LinearRegression that was never fitted"):
        load(LinearRegression())


def test_n_jobs_is_one_in_every_part() -> None:
    """Requests are too small to share out between threads or processes."""
    inner = make_pipeline(StandardScaler(), RandomForestClassifier(3))
    stack = StackingClassifier([("a", inner)], cv=2).fit(FRAME[["age"]].to_numpy(), LABELS)
    for part in (stack, stack.estimators_[0][-1]):
        part.n_jobs = -1

    model = load(stack)

    assert [part.n_jobs for part in parts(model._model) if getattr(part, "n_jobs", None)] == [1] * 2


def test_a_plain_model_with_names_takes_arrays_without_a_warning() -> None:
    """No data frame is made for a model that only checks the names; the answers are those of the data frame."""
    frame = FRAME[["age", "seats"]]
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, LABELS)
    expected = fitted.predict_proba(frame).tolist()

    model = load(fitted)

    assert model._frame is None
    assert model.inputs.names == ("age", "seats")
    assert expected == model.predict_proba(frame.to_numpy().tolist())


def test_a_model_that_routes_columns_gets_a_data_frame() -> None:
    """Names, whole numbers and missing values arrive as pandas would read them."""
    seen: list[pd.DataFrame] = []

    class Spy(BaseEstimator):  # type: ignore[misc]
        feature_names_in_ = np.array(["age", "country", "seats"], dtype=object)

        def predict(self, frame: pd.DataFrame) -> list[int]:
            seen.append(frame)
            return [0] * len(frame)

    model = SklearnModel(Spy())
    model.predict([[1, "FR", 3], [None, None, 4]])

    assert list(seen[0].columns) == ["age", "country", "seats"]
    assert seen[0].isna().to_numpy().tolist() == [[False, False, False], [True, True, False]]
    assert seen[0]["seats"].dtype == np.int64


class Own(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Somebody's own transformer, of which nothing is known."""

    def fit(self, rows: Any, labels: Any = None) -> "Own":
        """Learn nothing."""
        self.n_features_in_ = np.shape(rows)[1]
        return self

    def transform(self, rows: Any) -> Any:
        """Change nothing."""
        return rows


NUMBER, ANY = Column(), Column(kind="any")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([StandardScaler(), LogisticRegression()], [NUMBER] * 2),
        (["passthrough", SimpleImputer(strategy="most_frequent"), LogisticRegression()], [NUMBER] * 2),
        ([FunctionTransformer(), LogisticRegression()], [NUMBER] * 2),
        ([FunctionTransformer(np.log1p), LogisticRegression()], [ANY] * 2),
        ([Own(), LogisticRegression()], [ANY] * 2),
        (
            [make_column_transformer(("passthrough", [0]), remainder=StandardScaler()), LogisticRegression()],
            [NUMBER] * 2,
        ),
        (
            [make_column_transformer((OrdinalEncoder(), [1]), remainder="drop"), LogisticRegression()],
            [Column(kind="unused", example=None), Column(example=1)],
        ),
        (
            [make_column_transformer((StandardScaler(), slice(0, 1)), (Own(), [False, True])), LogisticRegression()],
            [NUMBER, ANY],
        ),
        (
            [make_column_transformer((StandardScaler(), [0]), (OneHotEncoder(), [0, -1])), LogisticRegression()],
            [Column(example=20), Column(example=1)],
        ),
    ],
)
def test_what_a_column_takes_follows_from_what_touches_it_first(steps: list[Any], expected: list[Column]) -> None:
    """Pipelines, imputers and routers are seen through."""
    fitted = make_pipeline(*steps).fit(FRAME[["age", "seats"]].to_numpy(), LABELS)

    assert load_here(fitted).inputs.columns == tuple(expected)


def load_here(model: Any) -> SklearnModel:
    """A model that is not pickled, because its class is the test's own."""
    return SklearnModel(model)


def test_columns_picked_by_name_selector_and_slice_are_told_apart() -> None:
    """Every way of picking columns gives the same kinds."""
    text = Column("country", "any", "DE")
    for numbers, strings in (
        (["age"], ["country"]),
        (make_column_selector(pattern="age"), make_column_selector(pattern="country")),
        (slice("age", "age"), slice("country", "country")),
    ):
        router = make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(), strings))
        model = load(make_pipeline(router, LogisticRegression()).fit(FRAME, LABELS))

        assert model.inputs.columns == (Column("age"), text, Column("seats", "unused", None))


def test_a_search_is_seen_through() -> None:
    """What a grid search found is what serves."""
    router = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["country"]), ("passthrough", ["age", "seats"])
    )
    search = GridSearchCV(make_pipeline(router, LogisticRegression()), {}, cv=2).fit(FRAME, LABELS)

    model = load(search)

    assert [c.kind for c in model.inputs.columns or ()] == ["number", "any", "number"]
    assert len(model.predict([[20, "XX", 1]])) == 1


def test_a_model_of_texts_takes_strings() -> None:
    """A pipeline that begins with a vectoriser has no columns."""
    model = load(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good film", "bad film"], ["+", "-"]))

    assert (model.inputs.text, model.inputs.columns) == (True, None)
    assert model.predict([["good"], ["bad"]]) == ["+", "-"]


def test_a_null_that_the_model_does_not_take_is_named() -> None:
    """The first null is pointed at, by number or by name."""
    array = load(LinearRegression().fit([[1, 2], [2, 3]], [2, 4]))
    named = load(LinearRegression().fit(FRAME[["age", "seats"]], LABELS))

    with pytest.raises(RequestError, match="row 1, column 0 is null, and the model takes no missing values"):
        array.predict([[1, 2], [None, 3]])
    with pytest.raises(RequestError, match="row 0, column 'seats' is null"):
        named.predict([[1, None]])


def test_a_value_that_the_model_never_saw_is_the_clients_mistake() -> None:
    """The model's own words come back, their first line."""
    router = make_column_transformer((OneHotEncoder(), ["country"]))
    model = load(make_pipeline(router, LogisticRegression()).fit(FRAME, LABELS))

    with pytest.raises(RequestError, match=r"the model refuses these rows: Found unknown categories \['XX'\]"):
        model.predict([[None, "XX", None]])
    with pytest.raises(RequestError, match="the model refuses these rows: "):
        model.predict([[None, 5, None]])


def test_only_a_value_error_is_about_numbers() -> None:
    """A matrix of numbers is always the right type: another error is a bug, and stays one."""
    with pytest.raises(RequestError, match=r"the model refuses these rows: no$"):
        load(Failing(ValueError("no\nsecret"))).predict([[1]])
    with pytest.raises(TypeError):
        load(Failing(TypeError("bug"))).predict([[1]])
    with pytest.raises(RequestError):
        load(Failing(TypeError("not for strings"))).predict([["a"]])
    with pytest.raises(KeyError):
        load(Failing(KeyError("bug"))).predict([["a"]])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (float("nan"), None),
        (np.float64("-inf"), None),
        (None, None),
        ("é", "é"),
    ],
)
def test_predictions_are_plain_values(value: object, expected: object) -> None:
    """Numpy's scalars become Python's; what JSON cannot say becomes null."""
    said = load(Saying(value)).predict([[1], [2]])

    assert [expected, expected] == said
    assert type(expected) is type(said[0])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        (np.array([np.inf, 2.0]), [None, 2.0]),
        (np.array(["a", "b"]), ["a", "b"]),
        ([np.array([[0.5, 0.5]]), np.array([[1.0]])], [[[0.5, 0.5]], [[1.0]]]),
        (pd.Series([1, 2]), [1, 2]),
        ([1, 2], [1, 2]),
        (7, [7]),
    ],
)
def test_every_shape_of_answer_is_plain(values: object, expected: object) -> None:
    """Several outputs, several tables, series and lists."""
    assert expected == runtime.plain(values)


def test_several_outputs_have_several_classes() -> None:
    """Classes and probabilities are then a list for each output."""
    fitted = MultiOutputClassifier(LogisticRegression()).fit([[0], [1], [2]], [[0, "a"], [1, "b"], [1, "c"]])

    model = load(fitted)

    assert model.classes == [["0", "1"], ["a", "b", "c"]]
    assert [list(np.array(p).shape) for p in model.predict_proba([[1]])] == [[1, 2], [1, 3]]


def test_a_model_without_probabilities_says_so() -> None:
    """It is known before anybody asks."""
    rows = [[0.0], [1.0], [2.0], [3.0]]

    assert not load(LinearRegression().fit(rows, LABELS)).has_proba
    assert not load(SVC().fit(rows, LABELS)).has_proba
    assert load(LogisticRegression().fit(rows, LABELS)).has_proba


def test_the_readme_of_a_model_is_not_needed(iris: Path) -> None:
    """Name of class, library and classes come from the model."""
    model = runtime.load(iris.read_bytes(), iris.name, allow_version_mismatch=False)

    assert model.kind == "RandomForestClassifier"
    assert model.library.startswith("scikit-learn 1.")
    assert model.classes == ["setosa", "versicolor", "virginica"]
