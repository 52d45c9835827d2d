"""scikit-learn's conventions for estimators, without importing it: that takes a second."""

import inspect


class Estimator:
    """Parameters are the arguments of the constructor; fitted attributes end in an underscore.

    What scikit-learn's ``BaseEstimator`` does as far as ``clone``, meta-estimators and
    `check_is_fitted` ask for it.
    """

    def get_params(self, deep=True):
        """The parameters by name."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **parameters):
        """Set parameters by name; ValueError for a name that is none."""
        if unknown := sorted(parameters.keys() - self._defaults().keys()):
            raise ValueError(f"{type(self).__name__} has no parameter {unknown[0]!r}")
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def __repr__(self):
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
    """Raise scikit-learn's NotFittedError, a ValueError, before `fit`."""
    if not any(name.endswith("_") and not name.startswith("__") for name in vars(estimator)):
        from sklearn.exceptions import NotFittedError

        raise NotFittedError(f"this {type(estimator).__name__} is not fitted yet; call fit first")
