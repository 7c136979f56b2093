"""The names of every table's columns, in one place."""

USER, ITEM, TIME, EVENT, VALUE, TEXT = "user_id", "item_id", "timestamp", "event", "value", "text"
TITLE, CATEGORIES = "title", "categories"
AVAILABLE_FROM, AVAILABLE_UNTIL = "available_from", "available_until"

INTERACTIONS = [USER, ITEM, TIME, EVENT, VALUE, TEXT]
ITEMS = [ITEM, TITLE, TEXT, CATEGORIES, AVAILABLE_FROM, AVAILABLE_UNTIL]
POINTS = ["point_id", USER, ITEM, TIME]
