"""Requests carried out: what follows from the ledger, step by step, until each is closed.

======================  ==============================================================================
``processor``           the steps of a batch: unlearn, gate, promote, purge, certify
``production``          the model in production: ``data/base``, its version in MLflow
``contents``            what the samples of a batch look like, as keyed digests
``purge``               what was erased leaves the data and every store
``cohort``              the model in production, audited again
``rollback``            an earlier version into production, if that is allowed
``trace``               the way from a request to the weights, and back
``reconcile``           what the other stores say, beside the ledger
``repository``          Git, as far as processing needs it
``plain``               the stages run by ``dvc repro``, for processing without Prefect
======================  ==============================================================================
"""
