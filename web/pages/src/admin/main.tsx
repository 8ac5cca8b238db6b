/** For the people who run the gate: users, usage, how the gate is, for whom it decides, and who changed what. */

import { createRoot } from "react-dom/client";
import { App } from "./App.js";
import "@quota-gate/react/styles.css";
import "../page.css";
import "./admin.css";

createRoot(document.getElementById("root") as HTMLElement).render(<App />);
