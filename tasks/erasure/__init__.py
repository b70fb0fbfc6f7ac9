"""Erasure: what requests name leaves the data and every store that keeps a copy.

======================  ==============================================================================
``purge``               what was erased from the model leaves the data and every store
``originals``           the encoded images of a source, and how they leave it
``fingerprints``        what samples look like, as keyed digests by which copies are found
``search``              search of any content for samples
``sought``              what a search looks for, in the clear or as keyed digests
``scan``                one content that is being searched, and how much of it may be unpacked
``found``               what a search found, and what it could not read
``formats``             how each format is read
``lineage``             what was made of a sample, though its content does not show it
``stores``              the places where samples can lie
``prefect_runs``        Prefect's flow runs, over its API
======================  ==============================================================================
"""
