-- The database of MLflow's users and permissions. The server's own database is POSTGRES_DB.
CREATE DATABASE mlflow_auth;
