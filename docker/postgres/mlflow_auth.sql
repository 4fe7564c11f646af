-- MLflow's users and permissions have a database of their own; the server's own is POSTGRES_DB.
CREATE DATABASE mlflow_auth;
