"""What a search in the shop looks at: the words of a product, ranked by Lucene's BM25."""

from __future__ import annotations

from collections.abc import Iterable

from agentgym.envs.lucene import LuceneIndex
from agentgym.envs.webshop_catalogue import Product


def product_index(products: Iterable[Product]) -> LuceneIndex:
    """Index products as the benchmark does."""
    return LuceneIndex.build((product.asin, searched_text(product)) for product in products)


def searched_text(product: Product) -> str:
    """Return what is searched: title, description, the first feature and all options."""
    options = ", and ".join(
        f"{name}: {', '.join(values)}" for name, values in product.options.items()
    )
    return " ".join((product.title, product.description, product.features[0], options)).lower()
