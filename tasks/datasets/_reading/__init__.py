"""What several sources share: how image files, tables and layouts are read.

======================  ==============================================================================
``decode``              many image files to one array, by processes side by side
``still``               one image file to one picture, as the settings say
``subjects``            whose each sample is
``passed_over``         files that are nobody's sample
``tiny_imagenet``       classes of validation images in a text file
``hub_files``           which Parquet files make up which part
``hub_columns``         which columns hold image, label and subject
======================  ==============================================================================
"""
