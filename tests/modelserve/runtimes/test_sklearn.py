"""Tests of the scikit-learn runtime: loading, refusals, signatures, predictions."""

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
from modelserve.runtimes.signature import Column
from modelserve.runtimes.sklearn import SklearnModel
from modelserve.runtimes.sklearn_signature import iter_estimators

FRAME = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "country": ["FR", "DE", "FR", "ES"], "seats": [1, 2, 3, 4]})
LABELS = [0, 1, 1, 0]


def load_pickled(model: object, *, allow_version_mismatch: bool = False) -> SklearnModel:
    """Pickle a model, and load the pickle."""
    return runtime.load_model(pickle.dumps(model), "m.pkl", allow_version_mismatch=allow_version_mismatch)


def dump_old_version(model: object) -> bytes:
    """Pickle a model like scikit-learn 0.1."""

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
def test_every_joblib_compression_is_loaded(compress: Any) -> None:
    """Compression is detected from the bytes, not from the file name."""
    out = io.BytesIO()
    joblib.dump(LinearRegression().fit([[1], [2]], [2, 4]), out, compress=compress)

    model = runtime.load_model(out.getvalue(), "model.joblib", allow_version_mismatch=False)

    assert model.predict([[3]]) == pytest.approx([6.0])


def test_a_different_scikit_learn_version_is_refused() -> None:
    """A version mismatch is an UnfitError with both versions."""
    with pytest.raises(UnfitError, match=r"was saved by scikit-learn 0\.1, and this is [0-9.]+"):
        runtime.load_model(
            dump_old_version(LinearRegression().fit([[1], [2]], [2, 4])), "m.pkl", allow_version_mismatch=False
        )


def test_a_different_version_is_loaded_if_allowed(caplog: pytest.LogCaptureFixture) -> None:
    """With allow_version_mismatch the model is loaded with a warning."""
    model = runtime.load_model(
        dump_old_version(LinearRegression().fit([[1], [2]], [2, 4])), "m.pkl", allow_version_mismatch=True
    )

    assert model.predict([[3]]) == pytest.approx([6.0])
    assert "from version 0.1 when using version" in caplog.text


def test_a_missing_library_is_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of a library that is not installed is an UnfitError with the library."""
    module = types.ModuleType("xgbust")
    exec("class Model:\n    def predict(self, rows): return rows", vars(module))
    monkeypatch.setitem(__import__("sys").modules, "xgbust", module)
    data = pickle.dumps(module.Model())
    monkeypatch.delitem(__import__("sys").modules, "xgbust")

    with pytest.raises(UnfitError, match=r"m\.pkl needs the module xgbust, which is not here") as refused:
        runtime.load_model(data, "m.pkl", allow_version_mismatch=False)

    assert refused.value.hint == "Install xgbust in the image."


def test_a_missing_submodule_asks_for_a_different_version() -> None:
    """A submodule missing in an installed library is a version problem, by the hint."""
    with pytest.raises(UnfitError, match=r"needs the module numpy\._core9") as refused:
        runtime.load_model(b"\x80\x04cnumpy._core9\narray\n.", "m.pkl", allow_version_mismatch=False)

    assert refused.value.hint == "Install the version of numpy that it was saved with."


def test_a_class_of_the_training_script_is_unfit() -> None:
    """A class defined in a notebook is an UnfitError with the class, not a broken file."""
    data = b"\x80\x04c__main__\nMyScaler\n."

    with pytest.raises(UnfitError, match=r"needs something that is not here: .*MyScaler"):
        runtime.load_model(data, "m.pkl", allow_version_mismatch=False)


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
def test_a_truncated_or_foreign_file_is_wrong_bytes(data: bytes) -> None:
    """Truncated pickles, LFS pointers and error pages are a WrongBytesError, not a bug."""
    with pytest.raises(WrongBytesError, match=r"m\.pkl cannot be unpickled: \w+: "):
        runtime.load_model(data, "m.pkl", allow_version_mismatch=False)


def test_an_object_without_predict_is_wrong_bytes() -> None:
    """A dict that holds a model is a WrongBytesError."""
    with pytest.raises(WrongBytesError, match=r"m\.pkl holds a dict, which has no predict"):
        load_pickled({"model": LinearRegression()})


def test_an_unfitted_model_is_wrong_bytes() -> None:
    """An estimator that was never fitted is a WrongBytesError."""
    with pytest.raises(WrongBytesError, match="a LinearRegression that was never fitted"):
        load_pickled(LinearRegression())


def test_n_jobs_is_set_to_one_in_nested_estimators() -> None:
    """Nested estimators never start threads or processes for a request."""
    inner = make_pipeline(StandardScaler(), RandomForestClassifier(3))
    stack = StackingClassifier([("a", inner)], cv=2).fit(FRAME[["age"]].to_numpy(), LABELS)
    for part in (stack, stack.estimators_[0][-1]):
        part.n_jobs = -1

    model = load_pickled(stack)

    assert [part.n_jobs for part in iter_estimators(model._model) if getattr(part, "n_jobs", None)] == [1] * 2


def test_a_model_that_only_checks_names_gets_arrays() -> None:
    """A model that only checks names gets arrays, without a warning, with equal results."""
    frame = FRAME[["age", "seats"]]
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, LABELS)
    expected = fitted.predict_proba(frame).tolist()

    model = load_pickled(fitted)

    assert model._frame_class is None
    assert model.signature.names == ("age", "seats")
    assert expected == model.predict_probabilities(frame.to_numpy().tolist())


def test_a_model_that_may_read_names_gets_a_data_frame() -> None:
    """The data frame has names, integer columns and missing values as pandas reads them."""
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


class CustomTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Custom transformer without tags or fitted attributes."""

    def fit(self, rows: Any, labels: Any = None) -> "CustomTransformer":
        """Store the number of columns, and nothing else."""
        self.n_features_in_ = np.shape(rows)[1]
        return self

    def transform(self, rows: Any) -> Any:
        """Return the rows without a change."""
        return rows


NUMBER, ANY = Column(), Column(kind="any")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([StandardScaler(), LogisticRegression()], [NUMBER] * 2),
        (["passthrough", SimpleImputer(strategy="most_frequent"), LogisticRegression()], [NUMBER] * 2),
        ([FunctionTransformer(), LogisticRegression()], [NUMBER] * 2),
        ([FunctionTransformer(np.log1p), LogisticRegression()], [ANY] * 2),
        ([CustomTransformer(), LogisticRegression()], [ANY] * 2),
        (
            [make_column_transformer(("passthrough", [0]), remainder=StandardScaler()), LogisticRegression()],
            [NUMBER] * 2,
        ),
        (
            [make_column_transformer((OrdinalEncoder(), [1]), remainder="drop"), LogisticRegression()],
            [Column(kind="unused", example=None), Column(example=1)],
        ),
        (
            [
                make_column_transformer((StandardScaler(), slice(0, 1)), (CustomTransformer(), [False, True])),
                LogisticRegression(),
            ],
            [NUMBER, ANY],
        ),
        (
            [make_column_transformer((StandardScaler(), [0]), (OneHotEncoder(), [0, -1])), LogisticRegression()],
            [Column(example=20), Column(example=1)],
        ),
    ],
)
def test_column_kinds_follow_from_the_first_transformer(steps: list[Any], expected: list[Column]) -> None:
    """Kinds are inferred through pipelines, imputers and column transformers."""
    fitted = make_pipeline(*steps).fit(FRAME[["age", "seats"]].to_numpy(), LABELS)

    assert wrap_unpickled(fitted).signature.columns == tuple(expected)


def wrap_unpickled(model: Any) -> SklearnModel:
    """Wrap a model without pickling, for classes of the test module."""
    return SklearnModel(model)


def test_column_kinds_are_inferred_for_names_selectors_and_slices() -> None:
    """Names, selectors and slices of a column transformer give equal kinds."""
    text = Column("country", "any", "DE")
    for numbers, strings in (
        (["age"], ["country"]),
        (make_column_selector(pattern="age"), make_column_selector(pattern="country")),
        (slice("age", "age"), slice("country", "country")),
    ):
        router = make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(), strings))
        model = load_pickled(make_pipeline(router, LogisticRegression()).fit(FRAME, LABELS))

        assert model.signature.columns == (Column("age"), text, Column("seats", "unused", None))


def test_column_kinds_are_inferred_through_a_search() -> None:
    """A fitted search is inspected like the best estimator."""
    router = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["country"]), ("passthrough", ["age", "seats"])
    )
    search = GridSearchCV(make_pipeline(router, LogisticRegression()), {}, cv=2).fit(FRAME, LABELS)

    model = load_pickled(search)

    assert [c.kind for c in model.signature.columns or ()] == ["number", "any", "number"]
    assert len(model.predict([[20, "XX", 1]])) == 1


def test_a_text_vectorizer_has_a_text_signature() -> None:
    """A pipeline that begins with a text vectorizer accepts strings as rows."""
    model = load_pickled(
        make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good film", "bad film"], ["+", "-"])
    )

    assert (model.signature.text, model.signature.columns) == (True, None)
    assert model.predict([["good"], ["bad"]]) == ["+", "-"]


def test_a_refused_null_is_reported_with_row_and_column() -> None:
    """The first null is reported by column number, or by name."""
    array = load_pickled(LinearRegression().fit([[1, 2], [2, 3]], [2, 4]))
    named = load_pickled(LinearRegression().fit(FRAME[["age", "seats"]], LABELS))

    with pytest.raises(RequestError, match="row 1, column 0 is null, and the model takes no missing values"):
        array.predict([[1, 2], [None, 3]])
    with pytest.raises(RequestError, match="row 0, column 'seats' is null"):
        named.predict([[1, None]])


def test_an_unknown_category_is_a_request_error() -> None:
    """An unknown category is a RequestError with the first line of the model's message."""
    router = make_column_transformer((OneHotEncoder(), ["country"]))
    model = load_pickled(make_pipeline(router, LogisticRegression()).fit(FRAME, LABELS))

    with pytest.raises(RequestError, match=r"the model refuses these rows: Found unknown categories \['XX'\]"):
        model.predict([[None, "XX", None]])
    with pytest.raises(RequestError, match="the model refuses these rows: "):
        model.predict([[None, 5, None]])


def test_only_a_value_error_is_a_request_error_for_numbers() -> None:
    """For a matrix of numbers only a ValueError concerns the data; other errors are bugs."""
    with pytest.raises(RequestError, match=r"the model refuses these rows: no$"):
        load_pickled(Failing(ValueError("no\nsecret"))).predict([[1]])
    with pytest.raises(TypeError):
        load_pickled(Failing(TypeError("bug"))).predict([[1]])
    with pytest.raises(RequestError):
        load_pickled(Failing(TypeError("not for strings"))).predict([["a"]])
    with pytest.raises(KeyError):
        load_pickled(Failing(KeyError("bug"))).predict([["a"]])


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
def test_numpy_scalars_become_plain_values(value: object, expected: object) -> None:
    """Numpy scalars become Python values; non-finite numbers become null."""
    said = load_pickled(Saying(value)).predict([[1], [2]])

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
def test_every_result_shape_becomes_plain_lists(values: object, expected: object) -> None:
    """Several outputs, several tables, series and lists become plain lists."""
    assert expected == runtime.to_plain_values(values)


def test_several_outputs_have_a_list_of_classes_each() -> None:
    """With several outputs, classes and probabilities are a list per output."""
    fitted = MultiOutputClassifier(LogisticRegression()).fit([[0], [1], [2]], [[0, "a"], [1, "b"], [1, "c"]])

    model = load_pickled(fitted)

    assert model.classes == [["0", "1"], ["a", "b", "c"]]
    assert [list(np.array(p).shape) for p in model.predict_probabilities([[1]])] == [[1, 2], [1, 3]]


def test_has_probabilities_follows_from_predict_proba() -> None:
    """Whether probabilities are available is known before the first request."""
    rows = [[0.0], [1.0], [2.0], [3.0]]

    assert not load_pickled(LinearRegression().fit(rows, LABELS)).has_probabilities
    assert not load_pickled(SVC().fit(rows, LABELS)).has_probabilities
    assert load_pickled(LogisticRegression().fit(rows, LABELS)).has_probabilities


def test_class_library_and_classes_come_from_the_model(iris: Path) -> None:
    """Class name, library version and class labels are read from the estimator."""
    model = runtime.load_model(iris.read_bytes(), iris.name, allow_version_mismatch=False)

    assert model.class_name == "RandomForestClassifier"
    assert model.library.startswith("scikit-learn 1.")
    assert model.classes == ["setosa", "versicolor", "virginica"]
