"""How well can a group of users be guessed? A logistic regression, asked of users whom its fit left out."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

FOLDS = 5
STRENGTH = 1.0  # sklearn's C


def area(features: np.ndarray | sp.csr_matrix, mine: np.ndarray, seed: int) -> float:
    """AUC of guessing `mine` (users,) from features (users, columns), cross-fitted in stratified folds.

    Scores of different folds are compared by their place in the fold.
    """
    from scipy.stats import rankdata
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    score = np.zeros(len(mine))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fitted, asked in folds.split(features, mine):
        model = LogisticRegression(C=STRENGTH, class_weight="balanced", solver="liblinear", random_state=seed)
        found = model.fit(features[fitted], mine[fitted]).decision_function(features[asked])
        score[asked] = rankdata(found) / len(asked)
    return float(roc_auc_score(mine, score))
