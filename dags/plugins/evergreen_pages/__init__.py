"""What the page "Evergreen" in Airflow shows, and how. Nothing here imports Airflow but `app`."""
