"""Erasure: what requests name leaves the data and every store that keeps a copy.

======================  ==============================================================================
``purge``               what was erased from the model leaves the data and every store
``again``               what a purge left open, searched again
``account``             what was found in each store, and the lines that this makes
``checklist``           what became of each store, said so that it can be recorded
``begun``               what a purge has begun, so that the next run can finish it
``ownership``           whose an object is, and so whether a purge may delete it
``lineage``             what this repository's stages made of a sample
``void_objects``        what of DVC's objects is to go, and how it goes
``models``              MLflow's models that knew what was erased
``places``              where else copies can lie, and what is to become of them
``git_lines``           what the commits of Git hold
``pointers``            the data sets that DVC tracks, and the list of the source's files
``source``              the source's pointers, brought up to date
``history``             files in the commits of Git
``originals``           the encoded images of a source, and how they leave it
``fingerprints``        what samples look like, as keyed digests by which copies are found
``search``              search of any content for samples
``checkpoints``         what trainings leave to go on with
``sought``              what a search looks for, in the clear or as keyed digests
``scan``                one content that is being searched, and how much of it may be unpacked
``found``               what a search found, and what it could not read
``formats``             how each format is read
``identity``            what identifies the samples of a purge, anywhere
``pointer``             DVC's records of a source that a stage makes
``public``              public data sets that lie in Git
``stores_git``          Git's whole history as a store
``stores``              the places where samples can lie
======================  ==============================================================================
"""
