"""What every predictor must do: a mixin for test classes, each of which names its predictor."""

import numpy as np
import pytest
from sklearn.base import clone

from lrmf import Lineage


def assert_probabilities(forecast, shape):
    assert forecast.shape == shape
    assert forecast.dtype == np.float32
    assert ((forecast >= 0) & (forecast <= 1)).all()


class PredictorContract:
    """Properties of all predictors, over answers and over proportions.

    A subclass sets `estimator`; the fixture `contract` fits it once to each kind of responses.
    """

    estimator = None
    row_tolerance = 1e-5  # of forecasts of the same model alone and among others
    permutation_tolerance = 1e-5  # None for predictors that draw at random by model

    def test_forecasts_are_probabilities_for_every_model_and_item(self, contract):
        assert_probabilities(contract.model.predict_proba(), contract.train.shape)

    def test_rows_and_items_can_be_chosen(self, contract):
        everything = contract.model.predict_proba()
        rows, items = np.array([10, 3, 0]), np.array([2, 0])
        chosen = contract.model.predict_proba(rows, items)
        np.testing.assert_allclose(chosen, everything[np.ix_(rows, items)], atol=1e-5)
        assert contract.model.predict_proba(np.array([], int)).shape == (0, everything.shape[1])

    def test_revealed_responses_give_probabilities(self, contract):
        revealed = contract.revealed(2)
        revealed[:, 0] = 1
        forecast = contract.model.predict_proba(contract.hidden, revealed=revealed)
        assert_probabilities(forecast, revealed.shape)

    def test_a_row_does_not_depend_on_the_other_rows(self, contract):
        rows, revealed = np.array([10, 3, 5]), contract.revealed(3)
        revealed[0, :3], revealed[1, 1:5] = 1, 0
        for shown in (None, revealed):
            together = contract.model.predict_proba(rows, revealed=shown)
            for place in range(3):
                part = None if shown is None else shown[[place]]
                alone = contract.model.predict_proba(rows[[place]], revealed=part)
                np.testing.assert_allclose(alone[0], together[place], atol=self.row_tolerance)

    def test_revealing_nothing_of_a_hidden_model_changes_nothing(self, contract):
        revealed = contract.revealed(contract.hidden.size)
        np.testing.assert_allclose(
            contract.model.predict_proba(contract.hidden, revealed=revealed),
            contract.model.predict_proba(contract.hidden),
            atol=1e-5,
        )

    def test_revealed_responses_of_another_shape_are_refused(self, contract):
        with pytest.raises(ValueError, match="revealed"):
            contract.model.predict_proba([0, 1], revealed=contract.revealed(3))
        with pytest.raises(ValueError, match="revealed"):
            contract.model.predict_proba([0, 1], revealed=contract.revealed(2)[:, 1:])

    def test_fit_returns_itself_and_leaves_data_and_parameters_alone(self, contract):
        assert contract.returned is contract.model
        np.testing.assert_array_equal(contract.train, contract.before)
        own, given = (
            {name: repr(value) for name, value in estimator.get_params().items()}
            for estimator in (contract.model, contract.estimator)
        )
        assert own == given

    def test_a_fit_depends_on_its_data_and_seed_alone(self, contract):
        """Neither on chance nor on an earlier fit of the same object."""
        tables = {"items": contract.snapshot.items, "models": contract.snapshot.models}
        again = clone(contract.estimator).fit(
            contract.snapshot.responses, contract.lineage, **tables
        )
        again.fit(contract.train, contract.lineage, **tables)
        expected = contract.model.predict_proba()
        np.testing.assert_array_equal(again.predict_proba(), expected)

    def test_permuting_models_permutes_the_forecasts(self, contract):
        if self.permutation_tolerance is None:
            pytest.skip("draws at random by model")
        order = np.random.default_rng(2).permutation(len(contract.train))
        models = contract.snapshot.models.iloc[order].reset_index(drop=True)
        lineage = Lineage.from_edges(contract.snapshot.lineage, models["model_id"])
        permuted = clone(contract.estimator)
        permuted.fit(contract.train[order], lineage, items=contract.snapshot.items, models=models)
        np.testing.assert_allclose(
            permuted.predict_proba(),
            contract.model.predict_proba()[order],
            atol=self.permutation_tolerance,
        )

    def test_neither_tables_nor_lineage_are_needed(self, contract):
        unrelated = Lineage.from_edges([], contract.snapshot.models["model_id"])
        forecast = clone(contract.estimator).fit(contract.train, unrelated).predict_proba()
        assert_probabilities(forecast, contract.train.shape)
