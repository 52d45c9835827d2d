"""scikit-learn's conventions for estimators, without its import, which takes a second."""

import inspect


class Estimator:
    """An estimator whose parameters are the arguments of its constructor.

    Fitted attributes end in an underscore. The methods are those of scikit-learn's
    ``BaseEstimator`` that ``clone``, meta-estimators and `check_is_fitted` need.
    """

    def get_params(self, deep=True):
        """Dict of the parameters by name; `deep` is accepted for scikit-learn and has no effect."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **parameters):
        """Set parameters by name.

        Raises
        ------
        ValueError
            If a name is not a parameter.
        """
        if unknown := sorted(parameters.keys() - self._defaults().keys()):
            raise ValueError(f"{type(self).__name__} has no parameter {unknown[0]!r}")
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def __repr__(self):
        # Parameters that differ from their defaults.
        changed = {
            name: value
            for name, value in self.get_params().items()
            if repr(value) != repr(self._defaults()[name])
        }
        arguments = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        return f"{type(self).__name__}({arguments})"

    def __sklearn_tags__(self):
        from sklearn.base import BaseEstimator

        return BaseEstimator().__sklearn_tags__()

    @classmethod
    def _defaults(cls):
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}


def check_is_fitted(estimator) -> None:
    """Raise scikit-learn's NotFittedError, a ValueError, if `fit` has not been called."""
    # Fitted attributes end in an underscore.
    if not any(name.endswith("_") and not name.startswith("__") for name in vars(estimator)):
        from sklearn.exceptions import NotFittedError

        raise NotFittedError(f"this {type(estimator).__name__} is not fitted yet; call fit first")
