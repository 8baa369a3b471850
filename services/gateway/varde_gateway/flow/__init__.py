"""The life of a document, one step a file, and the folders of what goes on beside it.

Out: ``draft``, ``compose``, ``send``, ``lifecycle``; ``seal``, ``outbox``, and ``beacon`` around a link that is cut. In: ``inbox``, ``hand_on`` for others,
``accept``, ``notify``, ``display``, ``acknowledge``, ``overdue``. ``heartbeats`` and ``numbers`` see that nothing is missing,
``store_watch`` that the broker stores. Every step works on the ``desk``, through its ``ports``, in a ``worker``.
"""
