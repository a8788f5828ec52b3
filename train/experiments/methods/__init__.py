"""The field's ways to judge a bag of pictures, compared on the nested protocol's folds and on the same frozen features.

Here may be: a way from a patient's pictures to a score, or the comparison of such ways. What is fitted sees training
patients alone. `method.py` says what a method is and what it sees; `pooling.py` and `networks.py` have the methods;
`compare.py` has the folds and the table. Nothing here ships.
"""
